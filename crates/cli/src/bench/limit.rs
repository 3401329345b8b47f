//! The limit: what one byte costs at least, from the speeds measured in the same run.
//!
//! ```text
//! put = 1 / max( CPU per plaintext byte / cores, (k+m)/k / disk write )
//!       CPU: read + seal + code and hash + (k+m)/k × (TLS + hash at the node + write)
//! get = 1 / max( CPU per plaintext byte / cores, 1 / disk write )
//!       CPU: read at the node + TLS + hash + open + write
//! ```
//! "Code and hash" is one pass: the chunk's hash, the code, and the hash of each shard. A get reads
//! k shards, whose bytes are the chunk's.

use super::Measured;

/// One direction.
pub struct Side {
    /// Bytes a second.
    pub limit: f64,
    /// What sets it.
    pub bound: &'static str,
    /// CPU time of one byte, in nanoseconds.
    pub terms: Vec<(&'static str, f64)>,
}

/// Both directions.
pub struct Limit {
    pub put: Side,
    pub get: Side,
}

impl Limit {
    pub fn of(m: &Measured) -> Limit {
        let ns = |rate: f64| if rate > 0.0 { 1e9 / rate } else { 0.0 };
        let stored = f64::from(m.policy.width()) / f64::from(m.policy.k.max(1));
        let put = vec![
            ("read", ns(m.read)),
            ("seal", ns(m.seal)),
            ("code and hash", ns(m.encode)),
            ("TLS", stored * ns(m.tls)),
            ("hash at the nodes", stored * ns(m.hash)),
            ("write", stored * ns(m.write)),
        ];
        let get = vec![
            ("read", ns(m.read)),
            ("TLS", ns(m.tls)),
            ("hash", ns(m.hash)),
            // Opening costs what sealing does.
            ("open", ns(m.seal)),
            ("write", ns(m.write)),
        ];
        let side = |terms: Vec<(&'static str, f64)>, disk_bytes: f64| {
            let cpu = terms.iter().map(|(_, ns)| ns).sum::<f64>() / m.cores.max(1) as f64;
            let disk = disk_bytes * ns(m.disk);
            Side { limit: 1e9 / cpu.max(disk), bound: if cpu >= disk { "CPU" } else { "disk" }, terms }
        };
        Limit { put: side(put, stored), get: side(get, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Policy;

    fn machine() -> Measured {
        let r = 1e9;
        Measured {
            policy: Policy::DEFAULT,
            cores: 2,
            threads: 2,
            seal: r,
            open: r,
            hash: r,
            encode: r,
            decode: r,
            decode_lost: r,
            tls: r,
            read: r,
            write: r,
            disk: 10.0 * r,
            sync: 0.001,
            seal_all: r,
            encode_all: r,
        }
    }

    #[test]
    fn a_put_pays_for_every_shard_and_a_get_for_the_chunk() {
        let limit = Limit::of(&machine());
        // 3 + 2 × 3 = 9 ns a byte on two cores; 5 ns a byte on two cores.
        assert_eq!((limit.put.limit.round(), limit.put.bound), ((2e9f64 / 9.0).round(), "CPU"));
        assert_eq!((limit.get.limit.round(), limit.get.bound), ((2e9f64 / 5.0).round(), "CPU"));
    }

    #[test]
    fn a_slow_disk_is_the_limit() {
        let limit = Limit::of(&Measured { disk: 1e8, ..machine() });
        assert_eq!((limit.put.limit.round(), limit.put.bound), (5e7, "disk"));
        assert_eq!((limit.get.limit.round(), limit.get.bound), (1e8, "disk"));
    }
}
