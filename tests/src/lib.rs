//! Part of Berth.
