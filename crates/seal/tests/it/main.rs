//! Tests of the crate's public face: round trips, boundaries, garbage, and the attacks that are
//! decided at this level (`attack_NN`, numbered as in the cryptography document).

mod account;
mod backup;
mod content;
mod cut;
mod link;
mod login;
mod message;
mod primitive;
mod sharing;
mod space;
mod support;
mod tree;
mod vectors;
