// A server of ours as a child process, for programs that kill it: `soak` and the kill loop.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "aionbd/status.h"

namespace aionbd {

/// A port of the loopback interface that nobody uses now.
Result<uint16_t> free_loopback_port();

/// What the system says of a process.
struct ProcessFigures {
  uint64_t resident_bytes = 0;
  uint64_t anonymous_bytes = 0;  // of them: heap and stacks
  uint64_t mapped_bytes = 0;     // of them: pages of files, the program's own among them
  uint64_t descriptors = 0;
};

/// Thread safety: single owner.
class ServerProcess {
 public:
  /// Will run `binary` serve on the port, with the data in `dir`/data and its log appended to
  /// `dir`/server.log. `flags` come last. The environment, with the settings in it, is ours.
  ServerProcess(std::string binary, std::string dir, uint16_t port);
  ~ServerProcess() { kill_now(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  /// It dies with the thread that calls this. Errors: io_error.
  Status start(const std::vector<std::string>& flags = {});
  /// SIGKILL; returns when it is gone. Nothing when it does not run.
  void kill_now();
  /// How it ended, if it did by itself; empty while it runs.
  std::string end_if_any();
  /// SIGTERM; the exit code, 128 + the signal that ended it, or -1 when it did not end in time.
  int terminate(std::chrono::seconds time);
  /// Errors: not_found, io_error.
  Result<ProcessFigures> figures() const;

  std::string data_dir() const { return dir_ + "/data"; }
  uint16_t port() const { return port_; }

 private:
  const std::string binary_, dir_;
  const uint16_t port_;
  pid_t pid_ = -1;
};

}  // namespace aionbd
