//! The thin slice: a coordinator, four nodes, an account, a shard in and out.

use crate::support::*;
use model::ChunkRef;

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_goes_in_and_comes_out() {
    let (_cluster, user) = Cluster::whole().await;
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let stored = user.store_chunk(&upload, chunk, vec![5; 100_000], &[]).await;
    for index in 0..4 {
        assert_eq!(stored.read(&user, &upload, index).await.unwrap(), stored.coded.shards[index as usize]);
    }
    user.commit(&upload, chunk.object, 1, 100_000, vec![]).await.unwrap();
    let status = user.status().await;
    assert_eq!((status.totals.objects, status.totals.chunks), (1, 1));
    assert_eq!(status.nodes.len(), 4);
}
