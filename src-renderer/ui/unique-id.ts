let last = 0;

/** An id for elements that refer to each other (labels, gradients), unique in this window. */
export const uniqueId = (prefix: string): string => {
  last += 1;
  return `${prefix}-${last}`;
};
