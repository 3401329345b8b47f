//! The limits of this machine, from terms measured one by one on one core: what a put or a get
//! cannot be faster than, whoever writes it.

use crate::machine::costs;
use erasure::Coder;
use model::{ChunkRef, ObjectId, Policy};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use seal::content::seal_chunk_to;
use seal::keys::ContentKey;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

const CHUNK: usize = model::chunk::CHUNK_SIZE;
const SHARD: usize = CHUNK / 2;

/// Terms: nanoseconds of CPU a byte on one core, unless said otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Reading a cached file.
    read: f64,
    /// Sealing (AES-256-GCM cells).
    seal: f64,
    open: f64,
    /// BLAKE3.
    hash: f64,
    /// Reed-Solomon parity at 2+2, a byte of data.
    code: f64,
    /// Rebuilding two data shards from two parity shards, a byte of data.
    decode: f64,
    /// TLS 1.3 over TCP on loopback, both ends.
    wire: f64,
    /// Writing to the disk's cache and syncing.
    write: f64,
    /// The disk's sequential write with fdatasync, bytes a second.
    disk: f64,
    /// One fdatasync after an appended 4 KiB, seconds.
    pub sync: f64,
    cores: f64,
}

impl Limits {
    /// Measures all terms. `small`: with a quarter of the bytes.
    pub fn measure(dir: &Path, small: bool) -> Self {
        let rounds = if small { 32 } else { 128 };
        let policy = Policy::DEFAULT;
        let env = env::real::env();
        let (mut rng, object) = (env.rand(), ObjectId::new(0, [7; 10]));
        let plain: Vec<u8> = noise(CHUNK);
        let bytes = (rounds * CHUNK) as f64;
        let ns = |cpu: f64| cpu * 1e9 / bytes;
        let key = ContentKey::generate(&mut rng);
        let mut sealed = Vec::new();
        let (cpu, _, ()) = costs(|| {
            for _ in 0..rounds {
                sealed.clear();
                seal_chunk_to(&mut sealed, &key, object, 0, &plain, false, &mut rng).expect("sealing");
            }
        });
        let seal = ns(cpu);
        let (cpu, _, _) = costs(|| (0..rounds).map(|_| blake3::hash(&plain)).collect::<Vec<_>>());
        let hash = ns(cpu);
        let record = seal::content::ChunkRecord::of(0, 0, &sealed).expect("a sealed chunk");
        let mut opened = Vec::new();
        let (cpu, _, ()) = costs(|| {
            for _ in 0..rounds {
                opened.clear();
                seal::content::open_chunk(&mut opened, &key, object, &record, CHUNK, &sealed).expect("opening");
            }
        });
        let open = (ns(cpu) - hash).max(0.0);
        let coder = Coder::new(policy).expect("the default policy");
        let chunk = ChunkRef { object, number: 0 };
        let copies: Vec<Vec<u8>> = (0..8).map(|_| with_room(&sealed, &coder)).collect();
        let (mut cpu, mut encoded) = (0.0, None);
        for _ in 0..rounds / 8 {
            // Copying the input is not what is measured.
            let inputs = copies.clone();
            let (c, _, last) = costs(|| {
                let mut last = None;
                for sealed in inputs {
                    last = Some(coder.encode(chunk, 0, sealed).expect("coding"));
                }
                last
            });
            cpu += c;
            encoded = last;
        }
        let n_over_k = f64::from(policy.width()) / f64::from(policy.k);
        let code = (ns(cpu) - hash * (1.0 + n_over_k)).max(0.0);
        let encoded = encoded.expect("rounds");
        let mut shards: Vec<Option<&[u8]>> = encoded.shards.iter().map(|s| Some(&s[..])).collect();
        shards[0] = None;
        shards[1] = None;
        let (cpu, _, ()) = costs(|| {
            for _ in 0..rounds {
                coder.decode(&encoded.descriptor, &shards).expect("decoding");
            }
        });
        let decode = (ns(cpu) - hash).max(0.0);
        let wire = tls(rounds * CHUNK) * 1e9 / bytes;
        let path = dir.join("limit");
        let (cpu, seconds, ()) = costs(|| {
            let mut file = File::create(&path).expect("a file");
            for _ in 0..rounds * CHUNK / SHARD {
                file.write_all(&plain[..SHARD]).expect("writing");
            }
            file.sync_data().expect("fdatasync");
        });
        let (write, disk) = (ns(cpu), bytes / seconds);
        let (cpu, _, ()) = costs(|| {
            let mut file = File::open(&path).expect("a file");
            let mut buffer = vec![0; CHUNK];
            for _ in 0..rounds {
                file.read_exact(&mut buffer).expect("reading");
            }
        });
        let read = ns(cpu);
        std::fs::remove_file(&path).expect("removing");
        let sync = one_sync(&dir.join("sync"));
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        Limits { read, seal, open, hash, code, decode, wire, write, disk, sync, cores }
    }

    /// Put at 2+2, MB/s of plaintext.
    pub fn put(&self) -> f64 {
        let cpu = self.read + self.seal + self.hash + self.code + 2.0 * (self.hash + self.wire + self.hash + self.write);
        1e3 / (cpu / self.cores).max(2.0 * 1e9 / self.disk)
    }

    /// Get with all servers up, MB/s of plaintext.
    pub fn get(&self) -> f64 {
        let cpu = self.read + self.wire + self.hash + self.open + self.write;
        1e3 / (cpu / self.cores)
    }

    /// Get with two data shards to be rebuilt, MB/s of plaintext.
    pub fn get_degraded(&self) -> f64 {
        let cpu = self.read + self.wire + self.hash + self.open + self.decode + self.write;
        1e3 / (cpu / self.cores)
    }

    /// Rebuilding shards at 2+2 from two others each, MB/s of what is rebuilt.
    pub fn rebuild(&self) -> f64 {
        let cpu = 2.0 * (self.read + self.wire + self.hash + self.decode + self.hash) + self.hash + self.write;
        1e3 / (cpu / self.cores).max(1e9 / self.disk)
    }

    /// Copying shards from one node to another, MB/s.
    pub fn copy(&self) -> f64 {
        let cpu = self.read + self.wire + self.hash + self.write;
        1e3 / (cpu / self.cores).max(1e9 / self.disk)
    }

    /// As a JSON object: nanoseconds a byte, and MB/s.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "read_ns": self.read, "seal_ns": self.seal, "open_ns": self.open, "hash_ns": self.hash, "code_ns": self.code,
            "decode_ns": self.decode, "wire_ns": self.wire, "write_ns": self.write, "disk_mb_s": self.disk / 1e6,
            "sync_ms": self.sync * 1e3, "cores": self.cores, "put_mb_s": self.put(), "get_mb_s": self.get(),
        })
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "limits of this machine ({} cores); ns of CPU a byte on one core, and GB/s", self.cores)?;
        let terms = [
            ("read a cached file", self.read),
            ("seal, AES-256-GCM", self.seal),
            ("open", self.open),
            ("hash, BLAKE3", self.hash),
            ("code 2+2", self.code),
            ("decode 2 of 4, worst", self.decode),
            ("TLS + TCP, both ends", self.wire),
            ("write + fdatasync", self.write),
        ];
        for (name, ns) in terms {
            writeln!(f, "  {name:<24}{ns:>8.3} ns{:>10.2}", 1.0 / ns.max(1e-9))?;
        }
        writeln!(f, "  {:<24}{:>8.0} MB/s", "disk, sequential", self.disk / 1e6)?;
        writeln!(f, "  {:<24}{:>8.3} ms", "one fdatasync", self.sync * 1e3)?;
        write!(f, "  so put <= {:.0} MB/s, get <= {:.0} MB/s ({:.0} with two rebuilt)", self.put(), self.get(), self.get_degraded())
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    env::real::env().rng.fill(&mut out);
    out
}

fn with_room(sealed: &[u8], coder: &Coder) -> Vec<u8> {
    let mut copy = Vec::with_capacity(coder.padded_len(sealed.len()));
    copy.extend_from_slice(sealed);
    copy
}

fn one_sync(path: &Path) -> f64 {
    let mut file = File::create(path).expect("a file");
    let page = noise(4096);
    let mut times = Vec::new();
    for _ in 0..50 {
        let (_, seconds, ()) = costs(|| {
            file.write_all(&page).expect("writing");
            file.sync_data().expect("fdatasync");
        });
        times.push(seconds);
    }
    std::fs::remove_file(path).expect("removing");
    crate::machine::median(times)
}

/// CPU seconds of both ends for sending so many bytes through TLS 1.3 on loopback.
fn tls(bytes: usize) -> f64 {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], private).expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (cpu, _, ()) = costs(|| {
        let sink = std::thread::spawn(move || {
            let (tcp, _) = listener.accept().expect("a connection");
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(server)).expect("TLS"), tcp);
            let mut buffer = vec![0; 256 << 10];
            let mut left = bytes;
            while left > 0 {
                let n = tls.read(&mut buffer).expect("reading");
                left -= n.min(left);
            }
        });
        let name = "localhost".try_into().expect("a name");
        let mut tls =
            StreamOwned::new(ClientConnection::new(Arc::new(client), name).expect("TLS"), TcpStream::connect(address).expect("TCP"));
        let buffer = noise(256 << 10);
        for _ in 0..bytes / buffer.len() {
            tls.write_all(&buffer).expect("writing");
        }
        tls.flush().expect("flushing");
        sink.join().expect("the other end");
    });
    cpu
}
