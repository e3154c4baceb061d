//! Commands about what fleet files declare as a whole, and pools.

use crate::control::actor::Actor;
use crate::control::commands::pools;
use crate::control::{Command, ControlError, views};

impl Actor {
    pub(super) fn dispatch_declared(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::PutPool(name, pool, reply) => self.change(
                reply,
                |w| {
                    pools::put(w, &name, &pool)?;
                    views::pool::one(w, &name)
                },
                |_, view| Ok(view),
            ),
            Command::DeletePool(name, reply) => self.change(
                reply,
                |w| {
                    let view = views::pool::one(w, &name)?;
                    pools::delete(w, &name)?;
                    Ok(view)
                },
                |_, view| Ok(view),
            ),
            Command::Pools(reply) => {
                self.read(reply, |w| Ok(views::pool::all(w)));
                Ok(())
            }
            Command::Pool(name, reply) => {
                self.read(reply, move |w| views::pool::one(w, &name));
                Ok(())
            }
            other => self.dispatch_job(other),
        }
    }
}
