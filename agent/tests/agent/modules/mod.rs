//! Modules of every kind: transforms, TensorFlow Serving, Python environments.

mod python;
mod tf_serving;
mod transform;
