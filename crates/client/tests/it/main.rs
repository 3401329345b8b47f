//! Stories of the client against a whole cluster in process. One binary: it links once.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests look at files, time and processes themselves

mod attacks;
mod conflicts;
mod files;
mod gateways;
mod hostile;
mod layouts;
mod links;
mod messages;
mod parts;
mod people;
mod recode;
mod sharing;
mod support;
mod versions;
mod watch;
