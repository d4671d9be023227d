// Warm-ups on the disk: the file WARM in the cache directory, so that those that run go on after a
// restart of the daemon, and what came of the others is still told.
//
// The file holds all jobs that are remembered and is replaced as a whole. Little-endian:
//   magic "NCFSWARM", u32 version, u32 number of jobs, the jobs, u64 XXH3 of everything before
//   text: u32 length, bytes; number and bool: u64
// What does not match to the byte, or breaks a bound of WarmJobs, is refused as a whole.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fuse_adapter/warm_jobs.h"

namespace ncfs {

// Jobs that have not ended are written as such, whatever they are at.
[[nodiscard]] std::vector<std::byte> encode_warm_jobs(const std::vector<WarmProgress>& jobs);
// Oldest first, numbers ascending; nothing in work. Nothing if the bytes are refused.
[[nodiscard]] std::optional<std::vector<WarmProgress>> decode_warm_jobs(
    std::span<const std::byte> bytes);

// `root` is the cache directory. An errno of the cache disk, or EBADMSG if the bytes are refused;
// no file is no job. Waits for the disk.
[[nodiscard]] int load_warm_jobs(int root, std::vector<WarmProgress>& jobs);
// Durable when it returns 0; after an error the file is the one before. Waits for the disk.
[[nodiscard]] int store_warm_jobs(int root, const std::vector<WarmProgress>& jobs);

}  // namespace ncfs
