//! Commands about what fleet files declare as a whole, and pools.

use crate::control::actor::Actor;
use crate::control::commands::pools;
use crate::control::{ControlError, Declared, fleets, views};

impl Actor {
    pub(super) fn dispatch_declared(&mut self, command: Declared) -> Result<(), ControlError> {
        match command {
            Declared::Apply(request, jobs, reply) => self.change(
                reply,
                |w| fleets::apply(w, &request, jobs),
                |_, plan| Ok(plan),
            ),
            Declared::Plan(request, reply) => {
                self.read(reply, move |w| fleets::plan(w, &request));
                Ok(())
            }
            Declared::Export(fleet, reply) => {
                self.read(reply, move |w| fleets::export(w, fleet));
                Ok(())
            }
            Declared::PutPool(name, pool, reply) => self.change(
                reply,
                |w| {
                    pools::put(w, &name, &pool)?;
                    views::pool::one(w, &name)
                },
                |_, view| Ok(view),
            ),
            Declared::DeletePool(name, reply) => self.change(
                reply,
                |w| {
                    let view = views::pool::one(w, &name)?;
                    pools::delete(w, &name)?;
                    Ok(view)
                },
                |_, view| Ok(view),
            ),
            Declared::Pools(reply) => {
                self.read(reply, |w| Ok(views::pool::all(w)));
                Ok(())
            }
            Declared::Pool(name, reply) => {
                self.read(reply, move |w| views::pool::one(w, &name));
                Ok(())
            }
        }
    }
}
