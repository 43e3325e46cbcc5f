"""HTTP servers, process life and the command line: everything that is put together."""
