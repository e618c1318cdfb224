/*
 * mesh.h - sparse blocks laid together: the live slots of many blocks on the memory of one, and nothing moves.
 *
 * A heap that does not move its objects keeps a page for the sake of one of them. Two blocks of a class whose live
 * slots do not overlap fit on the same memory, and so do dozens that are nearly empty: their slots are copied into a
 * *frame*, a part of a file in memory as large as a block, each at its own offset, and the addresses of the blocks are
 * made private views of the frame. Every object keeps its address and its contents; the pages that the blocks had go
 * back. The idea is that of Mesh (Powers et al., PLDI 2019), whose views are shared; private ones need no care when the
 * program writes or forks. The invariants:
 *   - a frame shows the live slots of each of its blocks as they were when the block was laid; what the program writes
 *     later makes a page of that block's view its own, so the program never changes a frame;
 *   - a frame is changed only in slots that are live in none of its blocks, by whoever lays a block, while all threads
 *     that may touch objects stand still;
 *   - a block is `viewing` when its pages are views, of a frame or of one it has left. They would not read as zero when
 *     discarded, so they are made ordinary pages instead (wn_mesh_renew);
 *   - frames that exist at a fork are *sealed*: views of the other process need them, so they are neither changed nor
 *     given back.
 *
 * Counts are guarded by the space's lock. One thread at a time plans and lays, and only where it says so while others
 * run.
 */
#ifndef WN_MESH_H
#define WN_MESH_H

#include "heap/space.h"

/* Bytes that the blocks in use take, where those that share memory count once. Under the space's lock; an estimate:
 * what the program has written to since is not known. */
size_t wn_mesh_resident(const wn_space *space);

/* Plans to lay sparse blocks together until those in use take no more than `enough` bytes; an older plan is dropped.
 * False: there is nothing to be gained, or it is not to be had here. Other threads may run. Some 40 us for each MiB of
 * blocks, so that `go_on`, unless it is NULL, is asked every so often: it may let others plan, which ends this plan,
 * and answer false, which ends it too. */
bool wn_mesh_plan(wn_space *space, size_t enough, bool (*go_on)(void *data), void *data);
/* Chooses blocks for a frame; false: the plan is at its end, and gone. Other threads may run. */
bool wn_mesh_choose(wn_space *space);
/* Lays what was chosen until about `deadline` (wn_os_now), while all threads that may touch objects stand still. True:
 * some of it is left. */
bool wn_mesh_lay(wn_space *space, uint64_t deadline);
void wn_mesh_drop_plan(wn_space *space);

/* ---- for the space itself; the first four under its lock --------------------------------------------------------- */

/* A block's slots are all free, or it is laid elsewhere: it needs its frame no more. */
void wn_mesh_leave(wn_space *space, wn_block *b);
/* A block is about to be allocated from: from now on it counts as having memory of its own. */
void wn_mesh_part(wn_space *space, wn_block *b);
/* After a fork: in the parent, whose frames the child needs, and in the child. */
void wn_mesh_seal(wn_space *space);
void wn_mesh_forget(wn_space *space);
/* Gives the pages of n blocks back to the system, so that they read as zero; nobody else has the blocks. */
void wn_mesh_renew(wn_space *space, wn_block *first, size_t n);
/* Gives back frames that no block is on. Takes the lock; any thread may at any time. */
void wn_mesh_give_back(wn_space *space);
void wn_mesh_fini(wn_space *space);

#endif
