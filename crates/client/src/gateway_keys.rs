//! Keys of this account's gateways: kept in its sealed notes, so that they are the same on all its machines and
//! no server can read them.

use crate::session::Client;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use model::{Error, Result};
use seal::gateway_key::GatewayKey;

/// Most keys of an account.
const KEYS_MAX: usize = 100;

impl Client {
    /// All keys, sorted by id.
    pub async fn gateway_keys(&self) -> Result<Vec<GatewayKey>> {
        Ok(self.notes().await?.1.gateway_keys.unwrap_or_default())
    }

    /// A fresh key, which `limit` may make less mighty.
    pub async fn create_gateway_key(&self, limit: impl Fn(&mut GatewayKey)) -> Result<GatewayKey> {
        let id = format!("SK{}", BASE32_NOPAD.encode(&self.env().random::<10>()));
        let mut key = GatewayKey::new(id, BASE64URL_NOPAD.encode(&self.env().random::<30>()), self.env().now_ms());
        limit(&mut key);
        self.change_notes(|notes| {
            let keys = notes.gateway_keys.get_or_insert_default();
            if keys.len() >= KEYS_MAX {
                return Err(Error::insufficient(format!("there are {KEYS_MAX} keys already")).hint("shardkeep s3 key revoke KEY"));
            }
            let at = keys.partition_point(|k| k.id < key.id);
            keys.insert(at, key.clone());
            Ok(((), true))
        })
        .await?;
        Ok(key)
    }

    /// Revokes a key: running gateways learn of it within seconds. `NotFound` when there is no such key.
    pub async fn revoke_gateway_key(&self, id: &str) -> Result<()> {
        self.change_notes(|notes| {
            let keys = notes.gateway_keys.get_or_insert_default();
            let before = keys.len();
            keys.retain(|k| k.id != id);
            if keys.len() == before {
                return Err(Error::not_found(format!("there is no key {}", id.escape_debug())).hint("shardkeep s3 key list"));
            }
            Ok(((), true))
        })
        .await
    }
}
