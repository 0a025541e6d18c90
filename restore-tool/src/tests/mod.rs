mod boundaries;
mod branching;
mod damage;
mod exporting;
mod hydrating;
mod planning;
mod repairing;
mod world;
