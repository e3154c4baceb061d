//! Joining a fleet.

use std::net::IpAddr;
use std::time::Duration;

use berth_model::instance::InstanceSpec;
use berth_model::node::Facts;
use berth_model::token::JoinToken;
use berth_proto::v1;
use berth_proto::v1::enrollment_client::EnrollmentClient;

use super::{Identity, IdentityError, Issued, NodeKey, accept};
use crate::clock;
use crate::data::DataDir;
use crate::rpc::connect::{Dialer, normalize};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What it takes to join.
#[derive(Debug)]
pub struct JoinRequest<'a> {
    /// The coordinator's address.
    pub endpoint: &'a str,
    /// From `berth node token create`.
    pub token: &'a JoinToken,
    /// Wanted name; none: the host's.
    pub name: Option<&'a str>,
    /// The machine's facts.
    pub facts: Facts,
    /// Which Pod this is, if it is one.
    pub pod: Option<Pod>,
}

/// Which Pod joins, as the downward API says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The UID of the Job that owns it.
    pub job_uid: String,
    /// Its address.
    pub address: IpAddr,
}

/// What joining gave.
#[derive(Debug)]
pub struct Joined {
    /// Who this is now.
    pub identity: Identity,
    /// What it is to run: told to Pods only.
    pub instance: Option<InstanceSpec>,
}

/// Joins: checks the coordinator's CA against the token before the token is sent, has the node's key
/// certified, and writes the identity. Joining the same fleet again renews.
pub async fn join(data: &DataDir, request: JoinRequest<'_>) -> Result<Joined, IdentityError> {
    match Identity::load(data) {
        Ok(known) if known.ca_key_hash != request.token.ca_key_hash => {
            return Err(IdentityError::OtherFleet {
                name: known.name,
                folder: data.identity(),
            });
        }
        Err(error @ IdentityError::File(_)) => return Err(error),
        _ => {}
    }
    let endpoint = normalize(request.endpoint)?;
    let key = NodeKey::load_or_make(&data.identity())?;
    let dialer = Dialer::pinned(&endpoint, &request.token.ca_key_hash)?;
    let name = request.name.unwrap_or_default();
    let boot_id = request.facts.boot_id.clone();
    let message = v1::JoinRequest {
        token_id: request.token.id.clone(),
        token_secret: request.token.secret.clone(),
        csr: key.request(name)?.into(),
        name: name.to_owned(),
        facts: Some(request.facts.into()),
        pod: request.pod.map(|pod| v1::PodIdentity {
            pod_uid: pod.uid,
            pod_name: pod.name,
            job_uid: pod.job_uid,
            address: pod.address.to_string(),
        }),
    };
    // From here on the channel is one whose server has proved itself.
    let channel = dialer.connect().await?;
    let mut client = EnrollmentClient::new(channel);
    let asked = client.join(message);
    let reply = answer(tokio::time::timeout(TIMEOUT, asked).await)?;
    let issued = Issued {
        name: &reply.name,
        endpoint: &endpoint,
        certificate: &reply.certificate,
        ca: &reply.ca,
        ca_key_hash: &request.token.ca_key_hash,
        renew_after: Duration::from_millis(reply.renew_after_ms),
    };
    let instance = reply
        .instance
        .map(InstanceSpec::try_from)
        .transpose()
        .map_err(|error| IdentityError::Answer(format!("instance: {error}")))?;
    let identity = accept(data, &key, &issued, &boot_id, clock::now())?;
    Ok(Joined { identity, instance })
}

/// The answer of an enrollment call, or whether it was a refusal or no answer at all.
pub(super) fn answer<T>(
    result: Result<Result<tonic::Response<T>, tonic::Status>, tokio::time::error::Elapsed>,
) -> Result<T, IdentityError> {
    use tonic::Code;
    let status = match result {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => status,
        Err(_) => {
            return Err(IdentityError::Unavailable(format!(
                "nothing within {TIMEOUT:?}"
            )));
        }
    };
    let text = match status.message() {
        "" => status.code().to_string(),
        text => text.to_owned(),
    };
    Err(match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::ResourceExhausted => IdentityError::Refused(text),
        _ => IdentityError::Unavailable(text),
    })
}
