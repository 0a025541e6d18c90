# Everyday commands; `just` alone lists them. Each is what stands here, so that `just` is a convenience and no need.

_default:
    @just --list

# What a change must pass, except that the tests may do without MinIO
check: && test
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# Mend what can be mended by itself
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# All tests, or those of the arguments: `just test -p duramen-wal`
test *arguments="--workspace":
    cargo test {{ arguments }}

# One random history of a node on a simulated machine
sim seed:
    DURAMEN_SIM_SEED={{ seed }} cargo test -p duramen-simulation --test histories

# Many of them, each in a process of its own
sims first="1" count="100":
    DURAMEN_SIM_FIRST={{ first }} DURAMEN_SIM_COUNT={{ count }} cargo test -p duramen-simulation --test histories

# The demo: append, archive, a mishap, a branch before it, a rebuilt node
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# Measures a node beside the ceilings of this machine: `just bench --list`, `just bench append-1 batches`
bench *arguments:
    cargo run --release -p duramen-bench -- {{ arguments }}

# What CI runs, MinIO and all
ci:
    bash .ci/run
