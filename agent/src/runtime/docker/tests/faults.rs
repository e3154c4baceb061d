//! What goes wrong with real containers.
