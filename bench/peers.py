"""File systems of others that a bench can compare with, where they are installed.

Each command mounts {backend} on {mountpoint}, may keep its cache in the empty directory {cache}, and
stays in the foreground until that is unmounted. Options are those under which a peer does its best
for this work and still shows what has changed on the backend.
"""

import shutil

RCLONE = "rclone mount {backend} {mountpoint} --read-only --allow-other --cache-dir {cache} " \
    "--vfs-cache-mode full --vfs-read-ahead 64M"
PEERS = {
    # Caches.
    "rclone": RCLONE,
    "rclone-fast": RCLONE + " --vfs-fast-fingerprint",  # asks for no checksum at open
    "catfs": "catfs -o allow_other {backend} {cache} {mountpoint}",
    # Pass through only: what a file system in user space costs by itself.
    "bindfs": "bindfs -f --multithreaded -o ro,allow_other {backend} {mountpoint}",
    "mergerfs": "mergerfs -f -o ro,allow_other,cache.files=auto-full {backend} {mountpoint}",
}


def installed_peers():
    return [(name, command) for name, command in PEERS.items() if shutil.which(command.split()[0])]
