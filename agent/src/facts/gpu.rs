//! GPUs, as NVIDIA's library tells. A machine without that library, or without the driver, has none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;

use berth_model::node::{Condition, Gpu, GpuStatistics};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

#[cfg(test)]
mod tests;

/// What was found at one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Look {
    /// What can be given to instances.
    pub(crate) gpus: Vec<Gpu>,
    /// What they do.
    pub(crate) busy: Vec<GpuStatistics>,
    /// The GPUs that answered, whole ones, also those that are given away in parts.
    pub(super) present: BTreeSet<String>,
    /// What did not work.
    pub(super) trouble: Vec<String>,
}

/// The library, once it is loaded, and what was seen through it.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    library: Option<PathBuf>,
    nvml: Option<Nvml>,
    /// Whole GPUs that were there at some time since the agent started, with their names.
    known: BTreeMap<String, String>,
}

impl Gpus {
    /// Through a library of that path instead of the system's.
    #[cfg(test)]
    fn through(library: PathBuf) -> Self {
        Self {
            library: Some(library),
            ..Self::default()
        }
    }

    /// Looks, with the library that is there now. May take as long as the driver does.
    pub(crate) fn look(&mut self) -> (Look, Option<Condition>) {
        let look = match self.nvml() {
            Ok(Some(nvml)) => {
                let look = devices(nvml);
                if look.present.is_empty() && !look.trouble.is_empty() {
                    // The driver may have been replaced: the library is loaded anew at the next look.
                    self.nvml = None;
                }
                look
            }
            Ok(None) => Look::default(),
            Err(error) => Look {
                trouble: vec![format!("NVIDIA's library does not work: {error}")],
                ..Look::default()
            },
        };
        let condition = condition(&self.known, &look);
        for gpu in &look.gpus {
            if look.present.contains(&gpu.uuid) {
                self.known.insert(gpu.uuid.clone(), gpu.name.clone());
            }
        }
        (look, condition)
    }

    /// None where there is no NVIDIA driver: that is no error.
    fn nvml(&mut self) -> Result<Option<&Nvml>, NvmlError> {
        if self.nvml.is_none() {
            let mut builder = Nvml::builder();
            if let Some(library) = &self.library {
                builder.lib_path(OsStr::new(library));
            }
            match builder.init() {
                Ok(nvml) => self.nvml = Some(nvml),
                Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.nvml.as_ref())
    }
}

fn devices(nvml: &Nvml) -> Look {
    let mut look = Look::default();
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => {
            look.trouble
                .push(format!("the NVIDIA driver does not answer: {error}"));
            return look;
        }
    };
    let driver = nvml.sys_driver_version().unwrap_or_default();
    for index in 0..count {
        let device = nvml.device_by_index(index);
        if let Err(error) = device.and_then(|device| whole(&device, &driver, &mut look)) {
            look.trouble
                .push(format!("GPU {index} does not answer: {error}"));
        }
    }
    look
}

/// One GPU, or its parts if it is divided: then it cannot be given away as a whole.
fn whole(device: &Device<'_>, driver: &str, look: &mut Look) -> Result<(), NvmlError> {
    let uuid = device.uuid()?;
    let divided = device
        .mig_mode()
        .is_ok_and(|mode| mode.current == MIG_ENABLED);
    if !divided {
        one(device, driver, look)?;
        look.present.insert(uuid);
        return Ok(());
    }
    look.present.insert(uuid);
    for index in 0..device.mig_device_count()? {
        match device.mig_device_by_index(index) {
            Ok(part) => one(&part, driver, look)?,
            // A place for a part that was not made.
            Err(NvmlError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const MIG_ENABLED: u32 = 1;

fn one(device: &Device<'_>, driver: &str, look: &mut Look) -> Result<(), NvmlError> {
    let uuid = device.uuid()?;
    let (total, used) = memory(device)?;
    look.gpus.push(Gpu {
        uuid: uuid.clone(),
        name: device.name()?,
        memory_bytes: total,
        driver: driver.to_owned(),
    });
    look.busy.push(GpuStatistics {
        uuid,
        memory_used_bytes: used,
        busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
    });
    Ok(())
}

/// All and used; zero of a GPU that shares the machine's memory, and where the driver is too old to tell.
fn memory(device: &Device<'_>) -> Result<(u64, u64), NvmlError> {
    match device.memory_info() {
        Ok(memory) => Ok((memory.total, memory.used)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok((0, 0)),
        Err(error) => Err(error),
    }
}

/// What people should know: GPUs that do not answer, and those that were there and are not.
fn condition(known: &BTreeMap<String, String>, look: &Look) -> Option<Condition> {
    let gone = known
        .iter()
        .filter(|(uuid, _)| !look.present.contains(*uuid))
        .map(|(uuid, name)| format!("{uuid} ({name}) was here and is not any more"));
    let all: Vec<String> = look.trouble.iter().cloned().chain(gone).collect();
    (!all.is_empty()).then(|| Condition {
        kind: Condition::GPU.to_owned(),
        message: format!(
            "{}; nothing new gets it. `nvidia-smi` and the kernel's log on the node tell more; often only a \
             reboot helps",
            all.join("; ")
        ),
    })
}
