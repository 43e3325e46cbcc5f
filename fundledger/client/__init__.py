"""The client of both services: async, typed, without a dependency on the services themselves."""
