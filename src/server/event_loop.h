// What the threads of the server wait for: sockets that have become ready, and work handed on.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "aionbd/status.h"
#include "base/mutex.h"

namespace aionbd {

/// Owns a file descriptor. Thread safety: compatible.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;

  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  void close();

 private:
  int release();
  int number_;
};

enum class Readiness : uint8_t { kToRead, kToWrite };

/// The events of many sockets for many threads. A socket is watched for one event at a time, which
/// goes to one thread (epoll with EPOLLONESHOT): while that thread is busy with it, whatever
/// arrives wakes nobody. Thread safety: safe.
class EventLoop {
 public:
  using Work = std::function<void()>;

  /// Errors: io_error.
  Status open();

  /// Gives one event named `id`, not kNoSocket, as soon as `socket` is ready or broken. Once more
  /// after each event; `watched_before` is false the first time. False if the system refuses.
  [[nodiscard]] bool watch(int socket, uint64_t id, Readiness readiness, bool watched_before);
  /// Has a thread in next() do `work`. Throws std::bad_alloc, and then does nothing.
  void post(Work work) EXCLUDES(mutex_);
  /// Lets every next() return nothing once all that was posted is taken. Cannot be undone.
  void end();

  static constexpr uint64_t kNoSocket = 0;
  struct Event {
    bool ended = false;
    uint64_t socket = kNoSocket;  // the id of the one that is ready
    Work work;                    // or something to do
  };
  /// Waits for an event. What was watched may be reported ready without being so, and an event
  /// may come after its socket was closed.
  Event next() EXCLUDES(mutex_);
  /// Readable from end() on.
  int end_descriptor() const { return ended_.number(); }

 private:
  Work take_posted() EXCLUDES(mutex_);

  Descriptor epoll_;
  Descriptor posted_event_;
  Descriptor ended_;
  Mutex mutex_;
  std::deque<Work> posted_ GUARDED_BY(mutex_);
};

}  // namespace aionbd
