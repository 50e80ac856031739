//! Handler API.
