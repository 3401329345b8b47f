//! Stories of coordinators and nodes in process, over real TLS on loopback. One binary: it links once.

#![allow(clippy::disallowed_methods)] // tests look at files, time and processes themselves

mod brake;
mod coordinators;
mod heal;
mod history;
mod hostile;
mod layouts;
mod login;
mod membership;
mod restore;
mod shards;
mod slice;
mod support;
