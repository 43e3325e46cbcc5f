"""HTTP wire level: client connections, the request protocol, memory of bodies, and the form of replies."""
