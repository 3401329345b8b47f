//! Stories of the simulated world.
