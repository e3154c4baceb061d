//! The model server that tests of TF Serving run against behaves like the real one: the same suite runs
//! against a real `tensorflow_model_server` where there is one (`BERTH_TEST_TFSERVING` or PATH).

use std::process::Command;

use anyhow::Result;
use berth_tests::{TfServing, output_of, tests_folder};

fn suite(module: &str) -> Result<()> {
    let found = TfServing::find()?;
    output_of(
        Command::new(&found.python)
            .args(["-B", "-m", "unittest", "-v", module])
            .current_dir(tests_folder().join("tfserving"))
            .env("TENSORFLOW_MODEL_SERVER", &found.server),
    )?;
    Ok(())
}

#[test]
fn rest_answers_as_the_real_one() -> Result<()> {
    suite("test_rest")
}

#[test]
fn grpc_answers_the_official_client() -> Result<()> {
    suite("test_grpc")
}

#[test]
fn starts_and_ends_as_the_real_one() -> Result<()> {
    suite("test_life")
}
