//! The simulated world: one turmoil host. Filled in with the simulation itself.
