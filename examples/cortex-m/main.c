/* Classifies one picture of a digit on a Cortex-M7, here the board mps2-an500 that QEMU plays:

     spikeserve export c models/pretrained/digits/1 build
     arm-none-eabi-gcc -std=c99 -O2 -mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16 --specs=rdimon.specs \
       -Ibuild -T examples/cortex-m/board.ld -o build/digits.elf \
       examples/cortex-m/main.c examples/cortex-m/vectors.c build/digits.c
     qemu-system-arm -M mps2-an500 -display none -monitor none -serial none \
       -semihosting-config enable=on,target=native -kernel build/digits.elf

   On a board of your own, its linker script and its first code stand in place of board.ld and vectors.c. */
#include <stdio.h>

#include "digits.h"

static const float picture[DIGITS_INPUTS] = {
    0, 0, 7, 8, 13, 16, 15, 1,
    0, 0, 7, 7, 4, 11, 12, 0,
    0, 0, 0, 0, 8, 13, 1, 0,
    0, 4, 8, 8, 15, 15, 6, 0,
    0, 2, 11, 15, 15, 4, 0, 0,
    0, 0, 0, 16, 5, 0, 0, 0,
    0, 0, 9, 15, 1, 0, 0, 0,
    0, 0, 13, 5, 0, 0, 0, 0
};
static float currents[DIGITS_INPUTS];
static digits_net net;

int main(void) {
  int64_t counts[DIGITS_CLASSES];
  int step, label;
  digits_init(&net);
  if (digits_normalise(picture, currents)) return 1;
  digits_present(&net, currents);
  for (step = 0; step < DIGITS_TIME_STEPS; step++) digits_step(&net);
  digits_counts(&net, counts);
  printf("%d, of spike counts", (int)digits_class(&net));
  for (label = 0; label < DIGITS_CLASSES; label++) printf(" %d", (int)counts[label]);
  printf("\n");
  return 0;
}
