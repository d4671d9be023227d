// How often each eviction policy finds a file in the cache, beside what no policy can exceed.
//
// Synthetic traces of opens, the same on every run; a file is opened, read and closed before the
// next one is. The optimum is Belady's MIN where all files have one size ("A study of replacement
// algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966). With many sizes the
// optimum is NP-hard; then it is PFOO-U, an upper bound that may not be reachable (Berger,
// Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes",
// POMACS 2(2), 2018): of the times between two opens of a file, the cheapest in bytes times opens
// that the cache has room for in sum.
//
// Exits with 1 if a policy beats the optimum: then something here is wrong.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/eviction.h"
#include "io/types.h"
#include "sim/rng.h"

namespace ncfs {
namespace {

constexpr Eviction kPolicies[] = {Eviction::lru, Eviction::lfu, Eviction::arc, Eviction::s3fifo};

using FileNumber = std::uint64_t;

struct Trace {
  std::string name;
  std::string text;
  std::uint64_t cache_bytes = 0;
  std::vector<std::uint64_t> sizes;  // of the files, by number
  std::vector<FileNumber> opens;

  [[nodiscard]] bool is_uniform() const {
    return std::ranges::all_of(sizes, [this](std::uint64_t size) { return size == sizes[0]; });
  }
};

// Shares of all opens.
struct HitRatio {
  double files = 0;
  double bytes = 0;
};

// Draws 0, 1, 2, ... with weights 1, 1/2^alpha, 1/3^alpha, ...
class Zipf {
 public:
  Zipf(std::uint64_t count, double alpha) {
    double sum = 0;
    for (std::uint64_t rank = 1; rank <= count; ++rank) {
      sum += std::pow(static_cast<double>(rank), -alpha);
      sums_.push_back(sum);
    }
  }
  std::uint64_t draw(Rng& rng) const {
    const double ticket = static_cast<double>(rng.next() >> 11) * 0x1p-53 * sums_.back();
    const auto place = std::ranges::upper_bound(sums_, ticket);
    return std::min<std::uint64_t>(static_cast<std::uint64_t>(place - sums_.begin()),
                                   sums_.size() - 1);
  }

 private:
  std::vector<double> sums_;
};

// --- Traces ------------------------------------------------------------------------------------

// The cache of the traces with files of one size: a thousand files.
constexpr std::uint64_t kCacheFiles = 1000;

Trace uniform_trace(std::string name, std::string text, std::uint64_t files) {
  return {std::move(name),
          std::move(text),
          kCacheFiles * kGiB,
          std::vector<std::uint64_t>(files, kGiB),
          {}};
}

Trace zipf_trace(std::size_t opens, Rng rng) {
  Trace trace = uniform_trace("zipf", "10000 files, popularity Zipf 0.9", 10000);
  const Zipf popularity(10000, 0.9);
  while (trace.opens.size() < opens) trace.opens.push_back(popularity.draw(rng));
  return trace;
}

// Rounds of 2000 opens in the hot set and a scan over 2000 other files, as of a backup that goes
// on.
Trace scan_trace(std::size_t opens, Rng rng) {
  Trace trace = uniform_trace("scan", "hot set of 800 files, scans of 2000 others between", 20800);
  FileNumber scanned = 0;
  while (trace.opens.size() < opens) {
    const bool is_scan = trace.opens.size() / 2000 % 2 == 1;
    trace.opens.push_back(is_scan ? 800 + scanned++ % 20000 : rng.below(800));
  }
  return trace;
}

Trace epoch_trace(std::size_t opens, Rng rng, bool is_shuffled) {
  Trace trace = is_shuffled
                    ? uniform_trace("shuffled", "training, each epoch in another order", 1500)
                    : uniform_trace("epochs", "training, 1500 files in the same order", 1500);
  std::vector<FileNumber> order(1500);
  std::iota(order.begin(), order.end(), FileNumber{0});
  while (trace.opens.size() < opens) {
    const std::size_t turn = trace.opens.size() % order.size();
    if (is_shuffled) std::swap(order[turn], order[turn + rng.below(order.size() - turn)]);
    trace.opens.push_back(order[turn]);
  }
  return trace;
}

// A node that serves language models: a third of the opens are of 40 models of 4 to 140 GiB, the
// rest of 100000 files from 4 KiB to 64 MiB, most of them seldom.
Trace serving_trace(std::size_t opens, Rng rng) {
  constexpr std::uint64_t kModels = 40;
  constexpr std::uint64_t kOthers = 100000;
  Trace trace{"serving", "40 models of 4-140 GiB, 100000 small files", 1024 * kGiB, {}, {}};
  for (std::uint64_t model = 0; model < kModels; ++model) {
    trace.sizes.push_back((4 + rng.below(137)) * kGiB);
  }
  for (std::uint64_t file = 0; file < kOthers; ++file) {
    trace.sizes.push_back((4 * kKiB << rng.below(14)) + rng.below(4 * kKiB));
  }
  const Zipf models(kModels, 1.0);
  const Zipf others(kOthers, 0.7);
  while (trace.opens.size() < opens) {
    trace.opens.push_back(rng.chance({1, 3}) ? models.draw(rng) : kModels + others.draw(rng));
  }
  return trace;
}

// --- Hit ratios --------------------------------------------------------------------------------

class HitCounter {
 public:
  void count(std::uint64_t size, double hits) {
    ++opens_;
    opened_bytes_ += static_cast<double>(size);
    hits_ += hits;
    hit_bytes_ += hits * static_cast<double>(size);
  }
  [[nodiscard]] HitRatio ratio() const { return {hits_ / opens_, hit_bytes_ / opened_bytes_}; }

 private:
  double opens_ = 0;
  double opened_bytes_ = 0;
  double hits_ = 0;
  double hit_bytes_ = 0;
};

HitRatio hit_ratio_of(Eviction eviction, const Trace& trace) {
  const auto policy = make_eviction_policy(eviction, trace.cache_bytes);
  HitCounter hits;
  for (const FileNumber file : trace.opens) {
    const ObjectId object{file};
    const EvictionKey key{file};
    const std::uint64_t size = trace.sizes[file];
    const bool is_hit = policy->contains(object);
    hits.count(size, is_hit ? 1 : 0);
    policy->access(object, key);
    if (is_hit) {
      policy->set_evictable(object, false);
    } else {
      while (policy->total_bytes() + size > trace.cache_bytes) (void)policy->evict(key);
      policy->add(object, key, size, Arrival::requested);
    }
    policy->set_evictable(object, true);
  }
  policy->check_invariants();
  return hits.ratio();
}

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

// When the file of each open is opened again.
std::vector<std::size_t> next_opens(const Trace& trace) {
  std::vector<std::size_t> next(trace.opens.size());
  std::vector<std::size_t> later(trace.sizes.size(), kNever);
  for (std::size_t time = trace.opens.size(); time-- > 0;) {
    next[time] = std::exchange(later[trace.opens[time]], time);
  }
  return next;
}

HitRatio belady(const Trace& trace) {
  const std::vector<std::size_t> next = next_opens(trace);
  std::map<FileNumber, std::size_t> cached;  // and when it is opened next
  std::set<std::pair<std::size_t, FileNumber>> by_next_open;
  HitCounter hits;
  for (std::size_t time = 0; time < trace.opens.size(); ++time) {
    const FileNumber file = trace.opens[time];
    const auto entry = cached.find(file);
    hits.count(trace.sizes[file], entry == cached.end() ? 0 : 1);
    if (entry != cached.end()) {
      by_next_open.erase({entry->second, file});
    } else if (cached.size() == trace.cache_bytes / trace.sizes[0]) {
      cached.erase(by_next_open.rbegin()->second);
      by_next_open.erase(std::prev(by_next_open.end()));
    }
    cached[file] = next[time];
    by_next_open.emplace(next[time], file);
  }
  return hits.ratio();
}

// The bound for hits in files, or in bytes.
HitRatio pfoo_upper(const Trace& trace, bool for_bytes) {
  struct Interval {
    double cost = 0;  // bytes times opens
    double rank = 0;  // cost per what is gained
    std::uint64_t size = 0;
  };
  const std::vector<std::size_t> next = next_opens(trace);
  std::vector<Interval> intervals;
  HitCounter hits;
  for (std::size_t time = 0; time < trace.opens.size(); ++time) {
    const std::uint64_t size = trace.sizes[trace.opens[time]];
    hits.count(size, 0);
    if (next[time] == kNever) continue;
    const auto length = static_cast<double>(next[time] - time);
    const double cost = length * static_cast<double>(size);
    intervals.push_back({cost, for_bytes ? length : cost, size});
  }
  std::ranges::sort(intervals, {}, &Interval::rank);
  double left = static_cast<double>(trace.cache_bytes) * static_cast<double>(trace.opens.size());
  double gained = 0;
  double gained_bytes = 0;
  for (const Interval& interval : intervals) {
    const double part = std::min(1.0, left / interval.cost);
    gained += part;
    gained_bytes += part * static_cast<double>(interval.size);
    left -= part * interval.cost;
  }
  double bytes = 0;
  for (const FileNumber file : trace.opens) bytes += static_cast<double>(trace.sizes[file]);
  return {gained / static_cast<double>(trace.opens.size()), gained_bytes / bytes};
}

HitRatio optimum(const Trace& trace) {
  if (trace.is_uniform()) return belady(trace);
  return {pfoo_upper(trace, false).files, pfoo_upper(trace, true).bytes};
}

// --- Report ------------------------------------------------------------------------------------

struct Row {
  const Trace* trace = nullptr;
  std::map<Eviction, HitRatio> policies;
  HitRatio optimum;
};

std::string table_line(const std::string& name, const Row& row, double HitRatio::*unit) {
  std::string line = fmt::format("{:<16}", name);
  for (const auto& [eviction, ratio] : row.policies) line += fmt::format(" {:>7.3f}", ratio.*unit);
  return line + fmt::format(" {:>8.3f}\n", row.optimum.*unit);
}

nlohmann::json row_json(const Row& row) {
  nlohmann::json result = {{"trace", row.trace->name},
                           {"description", row.trace->text},
                           {"opens", row.trace->opens.size()},
                           {"cache_bytes", row.trace->cache_bytes},
                           {"optimum", row.trace->is_uniform() ? "MIN" : "PFOO-U"}};
  const auto add = [&](std::string_view name, const HitRatio& ratio) {
    result["hit_ratios"][std::string(name)] = {{"files", ratio.files}, {"bytes", ratio.bytes}};
  };
  for (const auto& [eviction, ratio] : row.policies) add(to_string(eviction), ratio);
  add("optimum", row.optimum);
  return result;
}

bool is_possible(const Row& row) {
  constexpr double kRounding = 1e-9;
  return std::ranges::all_of(row.policies, [&](const auto& policy) {
    return policy.second.files <= row.optimum.files + kRounding &&
           policy.second.bytes <= row.optimum.bytes + kRounding;
  });
}

int run(std::size_t opens, const std::string& json_path) {
  const Rng rng(1);
  const std::vector<Trace> traces = {
      zipf_trace(opens, rng.fork("zipf")), scan_trace(opens, rng.fork("scan")),
      epoch_trace(opens, rng.fork("epochs"), false), epoch_trace(opens, rng.fork("shuffled"), true),
      serving_trace(opens, rng.fork("serving"))};
  std::string table = fmt::format("{:<16}", "hits / opens");
  for (const Eviction eviction : kPolicies) table += fmt::format(" {:>7}", to_string(eviction));
  table += fmt::format(" {:>8}\n", "optimum");
  nlohmann::json report = nlohmann::json::array();
  bool all_possible = true;
  for (const Trace& trace : traces) {
    Row row{&trace, {}, optimum(trace)};
    for (const Eviction eviction : kPolicies)
      row.policies[eviction] = hit_ratio_of(eviction, trace);
    table += table_line(trace.name, row, &HitRatio::files);
    if (!trace.is_uniform()) table += table_line(trace.name + ", bytes", row, &HitRatio::bytes);
    report.push_back(row_json(row));
    all_possible = all_possible && is_possible(row);
  }
  fmt::print("{}", table);
  for (const Trace& trace : traces) fmt::print("{:<16} {}\n", trace.name, trace.text);
  if (!json_path.empty()) {
    std::ofstream file(json_path);
    file << report.dump(2) << '\n';
    if (!file.flush()) {
      fmt::print(stderr, "hit_ratio: cannot write {}\n", json_path);
      return 1;
    }
  }
  if (!all_possible) fmt::print(stderr, "hit_ratio: a policy beats the optimum\n");
  return all_possible ? 0 : 1;
}

}  // namespace
}  // namespace ncfs

int main(int argc, char** argv) {
  CLI::App app("Hit ratios of the eviction policies over synthetic traces.");
  std::size_t opens = 300000;
  std::string json_path;
  app.add_option("--opens", opens, "of each trace")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--json", json_path, "also write the table to this file");
  CLI11_PARSE(app, argc, argv);
  return ncfs::run(opens, json_path);
}
