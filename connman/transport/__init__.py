"""One open pipe, used once: how to dial it, read it, write it and end it. Knows no retry and no callback."""
