//! A relay as a process, its folder, a fleet's CA, callers and instances.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use berth_model::relay::{Answer, Caller, Role, gateway_name, relay_name};
use berth_relay::folder::{FORMAT, IDENTITY, Identity, TABLE, Table};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

pub(crate) const NODE: &str = "n1";

/// A fleet's CA.
pub(crate) struct Fleet {
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A key with its certificate.
pub(crate) struct Certified {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Certified {
    pub(crate) fn key_hash(&self) -> String {
        berth_relay::key_hash(&self.der).unwrap()
    }

    /// Another's certificate with this key.
    pub(crate) fn showing(&self, other: &Self) -> CertifiedKey {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let key = ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key)).unwrap();
        CertifiedKey::new(vec![other.der.clone()], key)
    }
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            ca: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// A certificate in one name, for `usage`, from `from` to `until` hours from now.
    pub(crate) fn certify(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        (from, until): (i64, i64),
    ) -> Certified {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = OffsetDateTime::now_utc() + time::Duration::hours(from);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::hours(until);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        Certified {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            key,
        }
    }

    pub(crate) fn gateway(&self, name: &str) -> Certified {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.certify(&gateway_name(name), usage, (-1, 24))
    }

    /// Makes TLS connections, with a certificate or without one.
    pub(crate) fn connector(
        &self,
        certified: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyCa(roots)));
        let config = match certified {
            None => builder.with_no_client_auth(),
            Some(certified) => {
                let key = PrivatePkcs8KeyDer::from(certified.key.serialize_der());
                let key = PrivateKeyDer::Pkcs8(key);
                builder
                    .with_client_auth_cert(vec![certified.der.clone()], key)
                    .unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }

    pub(crate) fn caller(&self, certified: &Certified) -> TlsConnector {
        self.connector(Some(certified), &[&version::TLS13])
    }
}

/// Checks that the CA signed and that the name ends as it should: what gateways do is their own tests' business.
#[derive(Debug)]
struct OnlyCa(RootCertStore);

mod verify {
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use tokio_rustls::rustls::client::{
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    };
    use tokio_rustls::rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
    use tokio_rustls::rustls::server::ParsedCertificate;
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::OnlyCa {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = ring::default_provider()
                .signature_verification_algorithms
                .all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.0,
                intermediates,
                now,
                algorithms,
            )?;
            let name = format!("{}.relay.berth.internal", super::NODE);
            verify_server_name(&parsed, &ServerName::try_from(name).unwrap())?;
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signed, &algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signed, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    }
}

/// A relay with its folders, and the agent's part.
pub(crate) struct Relay {
    pub(crate) dir: TempDir,
    pub(crate) fleet: Fleet,
    pub(crate) table: Table,
    child: Option<Child>,
    pub(crate) address: SocketAddr,
}

impl Relay {
    /// One that lets `callers` in and has no instance yet.
    pub(crate) async fn start(fleet: Fleet, callers: &[(&str, &Certified)]) -> Self {
        let dir = TempDir::with_prefix("berth-relay-").unwrap();
        for folder in ["folder", "runtime"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let certified = fleet.certify(
            &relay_name(&NODE.parse().unwrap()),
            ExtendedKeyUsagePurpose::ServerAuth,
            (-1, 24),
        );
        let identity = Identity {
            certificate: certified.pem.clone(),
            key: certified.key.serialize_pem(),
            ca: fleet.ca.pem(),
        };
        let table = Table {
            format: FORMAT,
            node: NODE.parse().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            callers: callers.iter().map(|(n, c)| caller(n, c)).collect(),
            instances: BTreeMap::new(),
        };
        let mut relay = Self {
            dir,
            fleet,
            table,
            child: None,
            address: ([127, 0, 0, 1], 0).into(),
        };
        relay.write(IDENTITY, &serde_json::to_vec(&identity).unwrap());
        relay.publish();
        relay.spawn().await;
        relay
    }

    /// Starts the program; there must be a table.
    pub(crate) async fn spawn(&mut self) {
        let endpoint = self.path("runtime").join(berth_relay::ENDPOINT);
        let _ = std::fs::remove_file(&endpoint);
        self.child = Some(self.command().spawn().unwrap());
        self.address = until(async || {
            let text = std::fs::read_to_string(&endpoint).ok()?;
            text.trim().parse().ok()
        })
        .await;
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-relay"));
        command
            .arg("--folder")
            .arg(self.path("folder"))
            .arg("--runtime")
            .arg(self.path("runtime"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file as an agent does.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        replace(&self.path("folder").join(name), bytes);
    }

    /// Writes the table as it is now.
    pub(crate) fn publish(&self) {
        self.write(TABLE, &serde_json::to_vec(&self.table).unwrap());
    }

    /// Adds an instance.
    pub(crate) fn add(&mut self, id: &str, address: SocketAddr) {
        let target = address.to_string().parse().unwrap();
        self.table.instances.insert(id.parse().unwrap(), target);
        self.publish();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until the program has ended by itself.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        until(async || child.try_wait().unwrap()).await
    }

    /// A connection that the relay has answered.
    pub(crate) async fn call(
        &self,
        caller: &TlsConnector,
        instance: &str,
    ) -> std::io::Result<(TlsStream<TcpStream>, Answer)> {
        let name = format!("{instance}.{NODE}.relay.berth.internal");
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        let mut stream = caller.connect(name, tcp).await?;
        let byte = stream.read_u8().await?;
        Ok((stream, Answer::of(byte).unwrap()))
    }

    /// A connection to an instance.
    pub(crate) async fn connect(&self, caller: &TlsConnector, id: &str) -> TlsStream<TcpStream> {
        let (stream, answer) = self.call(caller, id).await.unwrap();
        assert_eq!(answer, Answer::Connected);
        stream
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("tmp");
    std::fs::write(&fresh, bytes).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

pub(crate) fn caller(name: &str, certified: &Certified) -> Caller {
    Caller {
        role: Role::Gateway,
        name: name.parse().unwrap(),
        key: certified.key_hash(),
    }
}

/// An instance that sends back what it gets, and ends its side when the other has ended.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Sends some bytes and gets them back.
pub(crate) async fn ping(stream: &mut TlsStream<TcpStream>, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    stream.flush().await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, text);
    Ok(())
}

/// Waits for what must come.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it never came")
}

/// A whole PEM file's first certificate, to keep the parser honest.
pub(crate) fn first(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
