use berth_model::gateway::GatewayReport;
use berth_model::route::Order;

use super::{ConvertError, field};
use crate::v1;

impl From<Order> for v1::Order {
    fn from(order: Order) -> Self {
        Self {
            epoch: order.epoch,
            term: order.term,
            generation: order.generation,
        }
    }
}

impl From<v1::Order> for Order {
    fn from(order: v1::Order) -> Self {
        Self {
            epoch: order.epoch,
            term: order.term,
            generation: order.generation,
        }
    }
}

impl From<GatewayReport> for v1::GatewayReport {
    fn from(report: GatewayReport) -> Self {
        Self {
            acknowledged: Some(report.acknowledged.into()),
            in_flight: report
                .in_flight
                .into_iter()
                .map(|(id, requests)| v1::InFlight {
                    instance: id.to_string(),
                    requests,
                })
                .collect(),
            draining: report.draining,
        }
    }
}

impl TryFrom<v1::GatewayReport> for GatewayReport {
    type Error = ConvertError;
    fn try_from(report: v1::GatewayReport) -> Result<Self, ConvertError> {
        let in_flight = report
            .in_flight
            .into_iter()
            .map(|entry| {
                Ok((
                    field("in_flight.instance", &entry.instance)?,
                    entry.requests,
                ))
            })
            .collect::<Result<_, ConvertError>>()?;
        Ok(Self {
            acknowledged: report.acknowledged.unwrap_or_default().into(),
            in_flight,
            draining: report.draining,
        })
    }
}
