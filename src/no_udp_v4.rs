//! Nothing, without the feature `udp-v4`.
