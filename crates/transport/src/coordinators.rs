//! The way to whichever coordinator leads, for clients and nodes.
//!
//! The one that answered last is asked first. Where it refuses because it does not lead, or says
//! nothing for [`SILENT`], the others are asked who leads, all at once, and whoever does is asked as
//! well; the first real answer counts. So one that is gone without a word costs a second, once. What
//! is sent may reach two coordinators, of which one carries it out: requests carry idempotence keys.

use crate::client::{Pool, Target};
use bytes::Bytes;
use env::Env;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use model::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::Rpc;
use wire::coordinator::Hello;

/// After so long without an answer another one is looked for.
const SILENT: Duration = Duration::from_secs(1);
/// How long the others have to say who leads.
const SEARCH: Duration = Duration::from_millis(1500);
/// Most addresses remembered.
const MOST: usize = 16;

/// The coordinators of a cluster, as somebody outside knows them.
pub struct Coordinators {
    env: Env,
    pool: Pool,
    /// The one that answered last comes first.
    known: Mutex<Vec<String>>,
}

type Call = BoxFuture<'static, (String, Result<Bytes>)>;

impl Coordinators {
    /// These, over a pool.
    pub fn new(env: Env, pool: Pool, known: Vec<String>) -> Self {
        Coordinators { env, pool, known: Mutex::new(known) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Their addresses, the one that answered last first.
    pub fn known(&self) -> Vec<String> {
        self.list().clone()
    }

    /// Takes over the cluster's own list. Addresses that it leaves out stay as a last resort, so that
    /// nobody is cut off by a wrong list. Whether anything is new.
    pub fn learn<'a>(&self, addresses: impl IntoIterator<Item = &'a String>) -> bool {
        let listed: Vec<&String> = addresses.into_iter().filter(|a| !a.is_empty()).collect();
        let mut known = self.list();
        let new = listed.iter().any(|a| !known.contains(a));
        let (mut kept, left_out): (Vec<String>, Vec<String>) = known.drain(..).partition(|a| listed.contains(&a));
        kept.extend(listed.into_iter().filter(|a| !kept.contains(*a)).cloned().collect::<Vec<_>>());
        kept.extend(left_out);
        kept.truncate(MOST);
        *known = kept;
        new
    }

    /// Their addresses for what needs a connection of its own, such as a join or a login: the one that leads comes
    /// first, also where it is none of those known but is named by them.
    pub async fn leader_first(&self) -> Vec<String> {
        if let Some(leader) = self.leader().await {
            self.prefer(&leader);
        }
        self.known()
    }

    /// Where the one is that leads by its own word; `None` when nobody who answers does or knows one that does.
    pub async fn leader(&self) -> Option<String> {
        self.search(&BTreeSet::new()).await
    }

    fn prefer(&self, address: &str) {
        let mut known = self.list();
        known.retain(|a| a != address);
        known.insert(0, address.into());
    }

    /// Asks whoever leads. `Unavailable` when nobody does at present, or none answers within `deadline`;
    /// whether it was carried out is then unknown.
    pub async fn rpc<R: Rpc>(&self, request: &R::Request, deadline: Duration) -> Result<R::Response> {
        Ok(self.rpc_from::<R>(request, deadline).await?.1)
    }

    /// The same, with the address of whoever answered.
    pub async fn rpc_from<R: Rpc>(&self, request: &R::Request, deadline: Duration) -> Result<(String, R::Response)> {
        let head: Bytes = wire::encode(request).into();
        let (address, answer) = self.call(R::PATH, head, deadline).await?;
        Ok((address, wire::decode(&answer)?))
    }

    async fn call(&self, path: &'static str, head: Bytes, deadline: Duration) -> Result<(String, Bytes)> {
        let Some(first) = self.known().into_iter().next() else { return Err(Error::unavailable("no coordinator is known")) };
        let ask = |address: String| -> Call {
            let (pool, head) = (self.pool.clone(), head.clone());
            Box::pin(async move {
                let answer = pool.call(&Target::coordinator(address.clone()), path, head, (), deadline).await;
                (address, answer.map(|(head, _)| head))
            })
        };
        let mut asked = BTreeSet::from([first.clone()]);
        let mut unavailable = BTreeSet::new();
        let mut calls: FuturesUnordered<Call> = FuturesUnordered::new();
        calls.push(ask(first));
        let mut last = Error::unavailable("no coordinator answers");
        loop {
            // Whoever is being asked has a moment for itself; then the others are asked who leads.
            let mut ended = self.env.timeout(SILENT, calls.next()).await.flatten();
            let found = loop {
                if let Some((address, answer)) = ended.take() {
                    match answer {
                        Err(e) if e.kind == Kind::Unavailable => {
                            last = e;
                            // Once more where it leads by its own word: it may have begun to since. Then that is the answer.
                            if unavailable.insert(address.clone()) {
                                asked.remove(&address);
                            }
                        }
                        answer => {
                            self.prefer(&address);
                            return answer.map(|answer| (address, answer));
                        }
                    }
                }
                if calls.is_empty() {
                    break self.search(&asked).await;
                }
                match select(pin!(self.search(&asked)), calls.next()).await {
                    Either::Left((found, _)) => break found,
                    Either::Right((answer, _)) => ended = answer,
                }
            };
            match found {
                Some(leader) => {
                    asked.insert(leader.clone());
                    calls.push(ask(leader));
                }
                None if calls.is_empty() => return Err(last),
                None => {}
            }
        }
    }

    /// A coordinator that leads, but for those that are being asked already.
    async fn search(&self, asked: &BTreeSet<String>) -> Option<String> {
        let mut hellos: FuturesUnordered<_> = self.known().into_iter().filter(|a| !asked.contains(a)).map(|a| self.hello(a)).collect();
        let mut named = BTreeSet::new();
        while let Some((address, leads, leader)) = hellos.next().await {
            if leads {
                return Some(address);
            }
            // Somebody may name one that is not known here.
            if let Some(leader) = leader.filter(|l| !asked.contains(l) && !self.known().contains(l) && named.insert(l.clone())) {
                hellos.push(self.hello(leader));
            }
        }
        None
    }

    /// Whether one leads, and which one does by its word.
    async fn hello(&self, address: String) -> (String, bool, Option<String>) {
        match self.pool.rpc::<Hello>(&Target::coordinator(address.clone()), &wire::PROTOCOL, SEARCH).await {
            Ok(hello) => (address, hello.leads, hello.leader),
            Err(_) => (address, false, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientTls, PoolConfig, Trust};

    fn coordinators(known: &[&str]) -> Coordinators {
        let env = env::real::env();
        let tls = ClientTls::new(&env, Trust::Fingerprint(model::Hash([1; 32])), None).unwrap();
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        Coordinators::new(env, pool, known.iter().map(|a| a.to_string()).collect())
    }

    #[test]
    fn the_clusters_list_goes_first_and_nothing_is_forgotten() {
        let all = coordinators(&["typed:1", "a:1"]);
        assert!(all.learn(&["a:1".to_string(), "b:1".into(), String::new()]));
        assert_eq!(all.known(), ["a:1", "b:1", "typed:1"]);
        all.prefer("b:1");
        assert!(!all.learn(&["a:1".to_string(), "b:1".into()]));
        assert_eq!(all.known(), ["b:1", "a:1", "typed:1"], "who answered last stays first");
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let start = std::time::Duration::from_secs(2);
        let all = coordinators(&["127.0.0.1:1", "127.0.0.1:2"]);
        let env = env::real::env();
        let asked = env.timeout(start, all.rpc::<Hello>(&wire::PROTOCOL, Duration::from_secs(15))).await;
        assert_eq!(asked.unwrap().unwrap_err().kind, Kind::Unavailable);
        assert_eq!(coordinators(&[]).rpc::<Hello>(&wire::PROTOCOL, start).await.unwrap_err().kind, Kind::Unavailable);
    }
}
