// The k best of many candidates: a bounded heap, worst on top.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace aionbd {

/// `Item` has a float member `distance`, never NaN. `Less` is a strict total order on items: by
/// distance first, then whatever breaks ties. Thread safety: single owner.
template <typename Item, typename Less>
class TopK {
 public:
  /// Keeps `k` items; room is made as they come, so a large k costs nothing up front.
  TopK(size_t k, Less less) : k_(k), less_(less) {}

  /// Distances above this cannot enter; equal ones may, by the tie-breaker.
  float threshold() const {
    return items_.size() < k_ ? std::numeric_limits<float>::infinity() : items_.front().distance;
  }

  void push(const Item& item) {
    if (items_.size() < k_) {
      items_.push_back(item);
      std::push_heap(items_.begin(), items_.end(), less_);
    } else if (k_ > 0 && less_(item, items_.front())) {
      std::pop_heap(items_.begin(), items_.end(), less_);
      items_.back() = item;
      std::push_heap(items_.begin(), items_.end(), less_);
    }
  }

  bool full() const { return items_.size() == k_; }
  const std::vector<Item>& items() const { return items_; }
  /// Best first; the heap is empty afterwards.
  std::vector<Item> take_sorted() {
    std::sort(items_.begin(), items_.end(), less_);
    return std::move(items_);
  }

 private:
  size_t k_;
  Less less_;
  std::vector<Item> items_;
};

}  // namespace aionbd
