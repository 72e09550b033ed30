# Android's adbd, built for this machine from Debian's source package of the platform tools.
# make -f build.mk SOURCE=(the unpacked, patched source) RECIPE=(this folder) adbd
ADB := system/core/adb
LIBRARIES := /usr/lib/$(shell dpkg-architecture -q DEB_HOST_MULTIARCH)/android

UNITS := \
  $(addprefix $(ADB)/, \
    adb adb_io adb_listeners adb_trace adb_unique_fd adb_utils services shell_service_protocol socket_spec \
    sockets sysdeps_unix transport transport_fd transport_local transport_usb types \
    sysdeps/errno sysdeps/posix/network fdevent/fdevent fdevent/fdevent_epoll fdevent/fdevent_poll \
    adbconnection/adbconnection_server) \
  $(addprefix $(ADB)/daemon/, auth file_sync_service jdwp_service main services shell_service usb_dummy) \
  system/core/diagnose_usb/diagnose_usb \
  system/core/libasyncio/AsyncIO \
  frameworks/native/libs/adbd_auth/adbd_auth
OBJECTS := $(UNITS:%=objects/%.o) objects/system/core/libcrypto_utils/android_pubkey.o objects/properties.o

INCLUDES := \
  $(ADB) $(ADB)/daemon/include $(ADB)/adbconnection/include \
  $(addprefix system/core/, base/include include libcutils/include liblog/include libcrypto_utils/include \
    diagnose_usb/include libasyncio/include) \
  frameworks/native/libs/adbd_auth/include

override CPPFLAGS += -D_GNU_SOURCE -DADB_HOST=0 -DALLOW_ADBD_NO_AUTH \
  -DPLATFORM_TOOLS_VERSION='"$(VERSION)"' -DADB_VERSION='"$(VERSION)-testdevice"' \
  $(INCLUDES:%=-I$(SOURCE)/%) -I/usr/include/android
override CXXFLAGS += -std=gnu++2a -O1 -fPIC -fno-strict-aliasing -w

# The device has its libraries in a folder of their own: below /lib there is nothing.
adbd: $(OBJECTS)
	clang++ -o $@ $^ -L$(LIBRARIES) -Wl,-rpath,/apex/adbd/lib \
	  -Wl,--dynamic-linker,/apex/adbd/lib/ld-linux-x86-64.so.2 \
	  -lbase -lcutils -llog -lcrypto -lcap -lresolv -lutil -lpthread

# Two copies of private/fs_config.h: this unit needs that of libcutils.
objects/$(ADB)/daemon/file_sync_service.o: override CPPFLAGS := \
  -I$(SOURCE)/system/core/libcutils/include $(CPPFLAGS)

objects/%.o: $(SOURCE)/%.cpp
	@mkdir -p $(@D)
	clang++ -c -o $@ $< $(CPPFLAGS) $(CXXFLAGS)

objects/%.o: $(SOURCE)/%.c
	@mkdir -p $(@D)
	clang -c -o $@ $< $(CPPFLAGS) -O1 -fPIC -w

objects/properties.o: $(RECIPE)/properties.cpp
	@mkdir -p $(@D)
	clang++ -c -o $@ $< $(CPPFLAGS) $(CXXFLAGS)
