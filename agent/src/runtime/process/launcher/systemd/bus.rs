//! Talking to systemd over D-Bus. A connection for each call: starts are seldom, and none needs to be kept alive.

use std::future::Future;
use std::time::Duration;

use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use crate::runtime::RuntimeError;

/// Where the system's bus listens.
pub(super) const SOCKET: &str = "/run/dbus/system_bus_socket";

/// How long systemd may take to answer: it may be busy booting.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a unit may take to be gone when it was killed.
const GONE: Duration = Duration::from_secs(10);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PATH: &str = "/org/freedesktop/systemd1";

/// Properties of a unit by name.
pub(super) type Properties = Vec<(&'static str, Variant<'static>)>;

/// Runs a conversation on a thread of its own, as it may be asked for within an event loop.
fn converse<T, F>(what: &str, talk: impl FnOnce(Connection) -> F + Send) -> Result<T, RuntimeError>
where
    T: Send,
    F: Future<Output = zbus::Result<T>>,
{
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Daemon {
        what: format!("{what} by systemd"),
        source,
    };
    let run = || -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
        let events = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let talk = async { talk(Connection::system().await?).await };
        let within = events.block_on(async { tokio::time::timeout(PATIENCE, talk).await });
        Ok(within.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??)
    };
    let done = std::thread::scope(|scope| scope.spawn(run).join());
    let done = done.unwrap_or_else(|_| Err("the conversation broke off".into()));
    done.map_err(failed)
}

async fn manager<B>(bus: &Connection, method: &str, body: &B) -> zbus::Result<zbus::Message>
where
    B: serde::ser::Serialize + zbus::DynamicType,
{
    bus.call_method(Some(SYSTEMD), PATH, Some(MANAGER), method, body)
        .await
}

/// Whether an error says that there is no such unit.
fn is_missing(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _)
        if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// None where there is no such unit.
fn known<T>(result: zbus::Result<T>) -> zbus::Result<Option<T>> {
    match result {
        Err(error) if is_missing(&error) => Ok(None),
        other => other.map(Some),
    }
}

async fn find(bus: &Connection, unit: &str) -> zbus::Result<Option<OwnedObjectPath>> {
    let Some(found) = known(manager(bus, "GetUnit", &(unit,)).await)? else {
        return Ok(None);
    };
    found.body().deserialize().map(Some)
}

async fn property(
    bus: &Connection,
    unit: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> zbus::Result<OwnedVariant> {
    let interfaces = Some("org.freedesktop.DBus.Properties");
    let body = &(interface, name);
    let found = bus
        .call_method(Some(SYSTEMD), unit, interfaces, "Get", body)
        .await?;
    found.body().deserialize()
}

/// systemd's version.
pub(super) fn version() -> Result<String, RuntimeError> {
    converse("be told of its version", |bus| async move {
        let interfaces = Some("org.freedesktop.DBus.Properties");
        let body = &(MANAGER, "Version");
        let found = bus
            .call_method(Some(SYSTEMD), PATH, interfaces, "Get", body)
            .await?;
        let version: OwnedVariant = found.body().deserialize()?;
        Ok(String::try_from(version).unwrap_or_default())
    })
}

async fn text(bus: &Connection, unit: &OwnedObjectPath, interface: &str, name: &str) -> String {
    let value = property(bus, unit, interface, name).await;
    let text = value.ok().and_then(|value| String::try_from(value).ok());
    text.unwrap_or_default()
}

/// Starts a transient unit; returns when systemd has begun with it.
pub(super) fn start(unit: &str, properties: Properties) -> Result<(), RuntimeError> {
    converse(&format!("have {unit} started"), |bus| async move {
        let further: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit, "fail", properties, further);
        manager(&bus, "StartTransientUnit", &body).await.map(|_| ())
    })
}

/// Why a unit does not run any more, if it does not.
pub(super) fn ended(unit: &str) -> Result<Option<String>, RuntimeError> {
    converse(&format!("be told of {unit}"), |bus| async move {
        let Some(path) = find(&bus, unit).await? else {
            return Ok(Some(format!("systemd has no unit {unit} any more")));
        };
        // First whether it has begun at all: it may do so at any moment.
        let begun = property(&bus, &path, UNIT, "InactiveExitTimestampMonotonic").await?;
        let state = text(&bus, &path, UNIT, "ActiveState").await;
        let begun = u64::try_from(begun).is_ok_and(|begun| begun > 0);
        if state != "failed" && (state != "inactive" || !begun) {
            return Ok(None);
        }
        let result = text(&bus, &path, SERVICE, "Result").await;
        let status = property(&bus, &path, SERVICE, "ExecMainStatus").await;
        let status = status.ok().and_then(|value| i32::try_from(value).ok());
        let status = status.unwrap_or_default();
        Ok(Some(format!(
            "its unit ended: {result}, status {status}; journalctl -u {unit} may tell more"
        )))
    })
}

/// Kills what is left of a unit and has it forgotten. Returns when it is not active any more.
pub(super) fn clear(unit: &str) -> Result<(), RuntimeError> {
    const KILL: i32 = 9;
    converse(&format!("have {unit} cleared away"), |bus| async move {
        let begin = tokio::time::Instant::now();
        while let Some(path) = find(&bus, unit).await? {
            let state = text(&bus, &path, UNIT, "ActiveState").await;
            if state == "failed" {
                known(manager(&bus, "ResetFailedUnit", &(unit,)).await)?;
                return Ok(());
            }
            if state == "inactive" {
                return Ok(());
            }
            // It fails where there is nothing to kill any more.
            let _ = manager(&bus, "KillUnit", &(unit, "all", KILL)).await;
            if begin.elapsed() > GONE {
                let why = format!("it is still {state} after SIGKILL");
                return Err(zbus::Error::Failure(why));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
}
