// The inode numbers that applications see.
//
// All of the mount has one st_dev, also what lies on file systems that are mounted beneath the
// source's root, whose inode numbers are their own. Programs that tell files by both (find, tar,
// rsync, du) must not take two files for one.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace ncfs {

// Files of the root's device keep their number. Those of another device never share one; a number
// that a file of another device has, they get with a chance of 2^-64.
[[nodiscard]] constexpr ino_t shown_inode(dev_t root, dev_t device, ino_t inode) {
  if (device == root) return inode;
  // The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
  // generators, 2014), which gives every number another.
  const auto mixed = [](std::uint64_t value) {
    value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
    value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
    return value ^ (value >> 31U);
  };
  return mixed(inode ^ mixed(device));
}

}  // namespace ncfs
