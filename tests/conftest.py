"""What all tests stand on."""

import signal

# A job in the background inherits that Ctrl-C is ignored, and so would what the tests start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
