"""What the integration tests stand on: one noun per module, real servers, guaranteed clean-up."""
