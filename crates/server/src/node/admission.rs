//! Whether a request may pass: who is at the other end, and what its capability allows.
//!
//! A capability counts when the cluster's capability key signed it, it names this node, the time is
//! right (with a minute for clocks that differ), and it names the key that this very connection has
//! proved. Verified ones are remembered by their hash; the bytes put under each are counted.

use model::cluster::{Capability, CapabilityBody, Operation};
use model::{Error, Hash, NodeId, ObjectId, PublicKey, Result, cbor, signed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wire::node::{ProveRequest, proof_body};

/// By how much the clocks of coordinators and nodes may differ.
const SKEW_MS: u64 = 60_000;
/// Longest validity of a capability.
const VALID_MAX_MS: u64 = 10 * 60_000;
/// Most verified capabilities remembered.
const REMEMBERED: usize = 4096;

/// A capability that was verified.
#[derive(Debug)]
pub(crate) struct Admitted {
    body: CapabilityBody,
    objects: BTreeSet<ObjectId>,
    put: AtomicU64,
}

/// The door of a node.
#[derive(Debug)]
pub(crate) struct Admission {
    node: NodeId,
    known: Mutex<BTreeMap<Hash, Arc<Admitted>>>,
}

impl Admission {
    pub fn new(node: NodeId) -> Self {
        Admission { node, known: Mutex::default() }
    }

    /// The capability, verified for this node, this time and this holder. `Denied` otherwise.
    pub fn admit(&self, key: &PublicKey, now_ms: u64, capability: &Capability, holder: Option<&PublicKey>) -> Result<Arc<Admitted>> {
        let holder = holder.ok_or_else(|| Error::denied("this connection has proved no key"))?;
        let hash = signed::hash_parts(&[&capability.signature.0, &capability.body]);
        let known = self.known().get(&hash).cloned();
        let admitted = match known {
            Some(admitted) => admitted,
            None => self.verify(key, capability)?,
        };
        let body = &admitted.body;
        if body.holder != *holder {
            return Err(Error::denied("this capability belongs to another key"));
        }
        if now_ms.saturating_add(SKEW_MS) < body.not_before_ms || now_ms >= body.expires_ms.saturating_add(SKEW_MS) {
            return Err(Error::denied("this capability has expired"));
        }
        Ok(self.remember(now_ms, hash, admitted))
    }

    fn verify(&self, key: &PublicKey, capability: &Capability) -> Result<Arc<Admitted>> {
        signed::verify(key, "capability", &capability.body, &capability.signature)?;
        let body: CapabilityBody = cbor::from_canonical(&capability.body).map_err(|_| Error::denied("this capability cannot be read"))?;
        if body.audience != self.node {
            return Err(Error::denied("this capability is for another node"));
        }
        if body.expires_ms.saturating_sub(body.not_before_ms) > VALID_MAX_MS {
            return Err(Error::denied("this capability is good for too long"));
        }
        let objects = body.objects.iter().copied().collect();
        Ok(Arc::new(Admitted { body, objects, put: AtomicU64::new(0) }))
    }

    fn remember(&self, now_ms: u64, hash: Hash, admitted: Arc<Admitted>) -> Arc<Admitted> {
        let mut known = self.known();
        if known.len() >= REMEMBERED && !known.contains_key(&hash) {
            known.retain(|_, a| a.body.expires_ms.saturating_add(SKEW_MS) > now_ms);
            while known.len() >= REMEMBERED {
                let soonest = known.iter().min_by_key(|(_, a)| a.body.expires_ms).map(|(h, _)| *h);
                soonest.map(|h| known.remove(&h));
            }
        }
        // Two requests may have verified it at once: the first one's count stands.
        known.entry(hash).or_insert(admitted).clone()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Hash, Arc<Admitted>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// `Denied` unless it allows reading this object. One that names no objects allows all.
    pub fn may_get(&self, object: &ObjectId) -> Result<()> {
        self.allows(Operation::Get)?;
        if self.objects.is_empty() || self.objects.contains(object) {
            Ok(())
        } else {
            Err(Error::denied("this capability does not name this object"))
        }
    }

    /// Counts `bytes` put for an object. `Denied` unless it allows exactly this object, and so many
    /// bytes. Bytes of a put that then fails stay counted: a limit, not an account.
    pub fn may_put(&self, object: &ObjectId, bytes: u64) -> Result<()> {
        self.allows(Operation::Put)?;
        if !self.objects.contains(object) {
            return Err(Error::denied("this capability does not name this object"));
        }
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.body.byte_limit);
        self.put
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .map(|_| ())
            .map_err(|_| Error::denied("this capability's byte limit is used up"))
    }

    fn allows(&self, operation: Operation) -> Result<()> {
        if self.body.operations.contains(&operation) { Ok(()) } else { Err(Error::denied("this capability does not allow this")) }
    }
}

/// Checks that the client at the other end of a connection holds a key.
pub(crate) fn prove(request: &ProveRequest, exporter: &[u8; 32], certificate: &Hash) -> Result<PublicKey> {
    wire::PROTOCOL.admit(request.protocol)?;
    let body = proof_body(exporter, certificate, &request.holder);
    signed::verify(&request.holder, "cap-proof", &body, &request.signature)?;
    Ok(request.holder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use model::{AccountId, Signature};

    const NOW: u64 = 1_800_000_000_000;
    const OBJECT: ObjectId = ObjectId([3; 16]);

    fn coordinators() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn public(key: &SigningKey) -> PublicKey {
        PublicKey(key.verifying_key().to_bytes())
    }

    fn holder() -> PublicKey {
        public(&SigningKey::from_bytes(&[2; 32]))
    }

    fn body() -> CapabilityBody {
        CapabilityBody {
            audience: NodeId(7),
            account: AccountId([4; 16]),
            operations: vec![Operation::Put],
            objects: vec![OBJECT],
            byte_limit: 100,
            holder: holder(),
            not_before_ms: NOW,
            expires_ms: NOW + VALID_MAX_MS,
        }
    }

    fn sign(key: &SigningKey, body: &CapabilityBody) -> Capability {
        let body = cbor::to_vec(body);
        let signature = Signature(key.sign(&signed::signing_input("capability", &body)).to_bytes());
        Capability { body: body.into(), signature }
    }

    fn admit(now: u64, capability: &Capability, holder: Option<&PublicKey>) -> Result<Arc<Admitted>> {
        Admission::new(NodeId(7)).admit(&public(&coordinators()), now, capability, holder)
    }

    fn refusal(change: impl FnOnce(&mut CapabilityBody)) -> String {
        let mut body = body();
        change(&mut body);
        admit(NOW, &sign(&coordinators(), &body), Some(&holder())).unwrap_err().message
    }

    #[test]
    fn a_good_capability_allows_its_object_up_to_its_limit() {
        let door = Admission::new(NodeId(7));
        let capability = sign(&coordinators(), &body());
        let admit = || door.admit(&public(&coordinators()), NOW, &capability, Some(&holder()));
        admit().unwrap().may_put(&OBJECT, 60).unwrap();
        assert_eq!(admit().unwrap().may_put(&OBJECT, 60).unwrap_err().message, "this capability's byte limit is used up");
        admit().unwrap().may_put(&OBJECT, 40).unwrap();
        assert!(admit().unwrap().may_put(&OBJECT, u64::MAX).is_err());
        assert!(admit().unwrap().may_put(&ObjectId([9; 16]), 0).is_err());
        assert!(admit().unwrap().may_get(&OBJECT).is_err());
    }

    /// Attack 29: audience, expiry, holder, replay.
    #[test]
    fn attack_29_a_capability_for_another_node_time_or_holder_is_refused() {
        assert_eq!(refusal(|b| b.audience = NodeId(8)), "this capability is for another node");
        assert_eq!(refusal(|b| b.holder = PublicKey([9; 32])), "this capability belongs to another key");
        assert_eq!(refusal(|b| b.expires_ms += 1), "this capability is good for too long");
        let good = sign(&coordinators(), &body());
        assert!(admit(NOW, &good, None).is_err());
        assert!(admit(NOW - SKEW_MS, &good, Some(&holder())).is_ok());
        assert!(admit(NOW - SKEW_MS - 1, &good, Some(&holder())).is_err());
        assert!(admit(NOW + VALID_MAX_MS + SKEW_MS - 1, &good, Some(&holder())).is_ok());
        assert!(admit(NOW + VALID_MAX_MS + SKEW_MS, &good, Some(&holder())).is_err());
        assert!(admit(NOW, &sign(&SigningKey::from_bytes(&[5; 32]), &body()), Some(&holder())).is_err());
        let mut flipped = good.clone();
        flipped.body[5] ^= 1;
        assert!(admit(NOW, &flipped, Some(&holder())).is_err());
        assert!(admit(NOW, &Capability { body: vec![0xff; 40].into(), signature: good.signature }, Some(&holder())).is_err());
    }

    #[test]
    fn what_is_remembered_still_expires_and_is_bounded() {
        let door = Admission::new(NodeId(7));
        let key = public(&coordinators());
        let good = sign(&coordinators(), &body());
        door.admit(&key, NOW, &good, Some(&holder())).unwrap();
        assert!(door.admit(&key, NOW + 2 * VALID_MAX_MS, &good, Some(&holder())).is_err());
        let door = Admission::new(NodeId(7));
        let admitted = door.admit(&key, NOW, &good, Some(&holder())).unwrap();
        for i in 0..REMEMBERED as u64 + 10 {
            door.remember(NOW, Hash::of(&i.to_be_bytes()), admitted.clone());
        }
        assert_eq!(door.known().len(), REMEMBERED);
    }

    #[test]
    fn a_proof_is_good_on_its_own_connection_only() {
        let key = SigningKey::from_bytes(&[2; 32]);
        let body = proof_body(&[1; 32], &Hash([2; 32]), &public(&key));
        let signature = Signature(key.sign(&signed::signing_input("cap-proof", &body)).to_bytes());
        let request = ProveRequest { protocol: wire::PROTOCOL, holder: public(&key), signature };
        assert_eq!(prove(&request, &[1; 32], &Hash([2; 32])), Ok(public(&key)));
        assert!(prove(&request, &[9; 32], &Hash([2; 32])).is_err());
        assert!(prove(&request, &[1; 32], &Hash([9; 32])).is_err());
    }
}
