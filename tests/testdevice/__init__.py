"""An emulated arm64 device with Android's own adbd, for tests of what goes over adb.

`prepare` builds it once from the distribution's packages; `TestDevice` boots it in namespaces of its own,
on loopback. Its shell and tools (mksh, toybox) are Android's, run by an emulator of the processor; its C
library, kernel and security policy are not. What runs here as an arm64 program has shown nothing about
bionic, an Android kernel, an accelerator or a phone.
"""
