"""Android devices over adb: the client, what is attached, and where files lie on a device."""
