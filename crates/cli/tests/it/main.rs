//! Stories of the command line with real processes. One binary: it links once.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests look at files, time and processes themselves

mod coordinators;
mod crashes;
mod damage;
mod growth;
mod journey;
mod json;
mod keeping;
mod outbox;
mod people;
mod refusals;
mod s3;
mod sharing;
mod support;
mod up_and_demo;
mod versions;
mod watching;
