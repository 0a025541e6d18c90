//! What end-to-end tests stand on: a real object store, the workspace's programs, and nodes as processes.
//!
//! - [`s3_server()`] gives the S3 server of this run, MinIO wherever that is possible, and [`Bucket`] a bucket of one's
//!   own on it, with temporary credentials for it ([`Bucket::session`]); [`S3Server::in_process`] and
//!   [`S3Server::minio`] ask for one of the two.
//! - [`programs()`] builds the four programs once and says where they are.
//! - [`Tool`] runs one of them to its end; [`Shell`] runs the commands of a document.
//! - [`NodeProcess`] is a running `duramen serve`: killed, stopped, started again; its output is shown when a test fails.
//! - [`Load`] appends numbered records until it is told to stop, and knows which must be there then.
//! - [`SmallDisk`] is a file system of its own, to be filled.
//! - [`setting()`] is what the environment says of a test.
//! - [`tool()`] finds programs that checks of files need, and [`run()`] runs one.
//!
//! Everything here is synchronous and may be called from an async test as well. Nothing sleeps: waiting is for a
//! condition, under a [`Deadline`]. What is started here ends when its handle is dropped, also in a test that fails.

mod deadline;
mod external;
mod in_process;
mod load;
mod minio;
mod node;
mod process;
mod programs;
mod s3;
mod session;
mod setting;
mod shell;
mod small_disk;
mod tool;

pub use deadline::Deadline;
pub use external::{python, run, tool};
pub use load::{Load, Written, agent, number_of, numbers};
pub use node::{NodeProcess, NodeSettings};
pub use process::{Process, Signal};
pub use programs::{Programs, programs};
pub use s3::{Bucket, S3Server, ServerKind, minio_program, object_store_used, s3_server};
pub use session::Session;
pub use setting::setting;
pub use shell::{Block, Shell, shell_blocks};
pub use small_disk::SmallDisk;
pub use tool::{Ran, Tool};
