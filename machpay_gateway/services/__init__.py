"""The use cases on records, shared by the admin API, the Console and the command line. They do no HTTP and no SQL."""
