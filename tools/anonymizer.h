// Takes the names of files out of what is handed to others. Every part of a path becomes a number,
// the same one wherever it appears, so that it can still be told which files are meant together.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace ncfs {

class Anonymizer {
 public:
  // "models/big" becomes "n1/n2".
  [[nodiscard]] std::string path(const std::string& path);
  // A reply of a daemon: replaces the members "path" and "paths", at whatever depth, and the values
  // of the options include and exclude.
  void clean(nlohmann::json& reply);
  // A message of the daemon, as journalctl -o json tells it, in one line. Without an anonymizer it
  // is the message as it was; with one, of those about files only the fields that name none.
  [[nodiscard]] static std::string log_line(const nlohmann::json& message, Anonymizer* anonymizer);

 private:
  std::map<std::string, std::size_t> names_;
};

}  // namespace ncfs
