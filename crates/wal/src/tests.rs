//! The log as a whole: on the real disk, and on the simulated one under every kind of mishap.

mod crash;
mod faults;
mod fixture;
mod model;
mod real;
mod reclaim;
