use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use berth_model::api::{GatewayView, List};

use crate::args::Predict;
use crate::client::Client;
use crate::output;
use crate::progress::note;

pub(super) async fn run(client: &Client, predict: Predict) -> Result<ExitCode> {
    let body = body(&predict.data)?;
    let gateways: List<GatewayView> = client.get("/v1/gateways").await?;
    // One that follows now, else any: a gateway serves without the coordinator, too.
    let gateway = gateways
        .items
        .iter()
        .max_by_key(|gateway| (gateway.connected, gateway.current))
        .context("there is no gateway: start one with `berth-coordinator --role gateway`")?;
    let url = format!(
        "{}/v1/models/{}:predict",
        gateway.url.trim_end_matches('/'),
        predict.service
    );
    let response = client
        .http()
        .post(&url)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .with_context(|| format!("cannot reach the gateway at {}", gateway.url))?;
    let status = response.status();
    if predict.verbose {
        for name in [
            "berth-service",
            "berth-revision",
            "berth-instance",
            "x-request-id",
        ] {
            let value = response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("-");
            note(&format!("{name}: {value}"));
        }
    }
    let text = response.text().await.context("the answer broke off")?;
    if !status.is_success() {
        note(&refused(status.as_u16(), &text));
        return Ok(ExitCode::FAILURE);
    }
    output::line(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// What the gateway or the module said, in its own words where it is what both say errors as.
fn refused(status: u16, body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let said = parsed.as_ref().and_then(|json| json.get("error")?.as_str());
    let said = said.unwrap_or(body).trim();
    let rest = match status {
        404 => "; `berth service list` shows all services",
        503 => "; `berth status` tells what is wrong",
        _ => "",
    };
    format!(
        "error: answered with {status}: {}{rest}",
        said.trim_end_matches('.')
    )
}

fn body(data: &str) -> Result<Vec<u8>> {
    match data.strip_prefix('@') {
        Some("-") => {
            let mut body = Vec::new();
            std::io::stdin()
                .read_to_end(&mut body)
                .context("cannot read standard input")?;
            Ok(body)
        }
        Some(file) => std::fs::read(file).with_context(|| format!("cannot read {file}")),
        None => Ok(data.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_without_its_wrapping() {
        assert_eq!(
            refused(404, r#"{"error":"There is no service named \"x\"."}"#),
            "error: answered with 404: There is no service named \"x\"; `berth service list` shows all services"
        );
        assert_eq!(refused(500, "oh\n"), "error: answered with 500: oh");
        assert_eq!(
            refused(400, "{\"why\": 1}"),
            "error: answered with 400: {\"why\": 1}"
        );
    }
}
