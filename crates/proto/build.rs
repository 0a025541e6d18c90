//! Compiles the `.proto` files in process (`protox`): building needs no `protoc`.

use std::io::Write as _;

const FILES: [&str; 3] =
    ["proto/duramen/v1/error.proto", "proto/duramen/v1/types.proto", "proto/duramen/v1/log.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::File::create(out.join("duramen.v1.bin"))?.write_all(&compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
