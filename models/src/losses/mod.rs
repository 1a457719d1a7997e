//! What learning makes small, each loss with its gradient.

pub mod sampled_softmax;
