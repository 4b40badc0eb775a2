# The few commands that people type. `just` alone lists them.

_:
    @just --list --unsorted

# The main job, on this machine's own sensors.
demo *ARGS:
    cargo run --release -p packmule-cli -- demo {{ARGS}}

# All tests.
test:
    cargo test --workspace

# Promise 8 at every write, sync and read, of every trip: an hour or two on one core. It tells how far it is.
cuts:
    PACKMULE_CUTS=all cargo test --release --test promise_08_crash_safe -- --nocapture

# What CI does: tests, lints, and the builds for all targets.
ci:
    .ci/run

# Formats the code.
fmt:
    cargo fmt --all

# Builds the program for a board of boards/.
build BOARD:
    tools/cross {{BOARD}}

# Makes a Debian package for a board, in target/.
deb BOARD:
    tools/deb {{BOARD}} "${CARGO_TARGET_DIR:-target}"
