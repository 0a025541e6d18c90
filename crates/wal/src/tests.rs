//! The log as a whole: on the real disk, and on the simulated one under every kind of mishap.

mod real;
